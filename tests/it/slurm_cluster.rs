//! A throw-away SLURM cluster on this machine: one controller and several nodes, each a `slurmd` of
//! its own on loopback. It needs no root. Debian's packages `slurmctld`, `slurmd`, `slurm-client`
//! and `munge` have all its programs; without them, tests say so and are skipped.

#![expect(clippy::print_stdout, reason = "prints what was skipped")]

use std::fmt::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time in which a daemon has to come up, or a state to be reached.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Where Debian has the daemons.
const PATHS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Variable that marks the processes of a node.
const NODE_MARK: &str = "MANDELBOX_TEST_NODE";

/// Settings of a cluster.
pub struct Settings {
    pub n_nodes: usize,
    pub n_cpus: usize,
    pub max_array_size: u64,
    /// Seconds after which a job that has ended leaves the queue.
    pub min_job_age_s: u64,
    /// True to limit the memory of jobs, which needs root and cgroups of version 1.
    pub limits_memory: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            n_nodes: 4,
            n_cpus: 4,
            max_array_size: 1001,
            min_job_age_s: 300,
            limits_memory: false,
        }
    }
}

impl Settings {
    /// Plugins that limit the memory of jobs, or none.
    fn plugins(&self) -> [&'static str; 3] {
        if self.limits_memory {
            ["proctrack/cgroup", "task/cgroup", "jobacct_gather/cgroup"]
        } else {
            ["proctrack/linuxproc", "task/none", "jobacct_gather/none"]
        }
    }
}

/// Reason why jobs have no memory limits here; `None` if they can have them.
fn obstacle_to_memory_limits() -> Option<&'static str> {
    let user = Command::new("id").arg("-u").output().expect("id").stdout;
    if String::from_utf8_lossy(&user).trim() != "0" {
        return Some("limits of memory need root");
    }
    let has_groups = Path::new("/sys/fs/cgroup/memory/tasks").is_file();
    (!has_groups).then_some("limits of memory need cgroups of version 1")
}

/// A running cluster. It ends, with its jobs, when this value is dropped.
pub struct Cluster {
    folder: PathBuf,
    settings: Settings,
    munged: Option<Child>,
    controller: Option<Child>,
    nodes: Vec<Option<Child>>,
    /// One cluster at a time: each wants the CPUs of the machine.
    _alone: MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());

/// Reason why no cluster can start here; `None` if one can.
fn obstacle() -> Option<String> {
    if std::env::var_os("MANDELBOX_TEST_SLURM").is_some_and(|value| value == "0") {
        return Some("MANDELBOX_TEST_SLURM is 0".to_owned());
    }
    for program in ["slurmctld", "slurmd", "sbatch", "munged"] {
        let is_there = |folder: &str| Path::new(folder).join(program).is_file();
        if !PATHS.split(':').any(is_there) {
            return Some(format!("`{program}` is not installed"));
        }
    }
    let name = host_name();
    if name.is_empty() {
        return Some("this machine has no name".to_owned());
    }
    let resolved = Command::new("getent").args(["hosts", &name]).output();
    (!resolved.is_ok_and(|output| output.status.success()))
        .then(|| format!("the name of this machine, {name}, does not resolve"))
}

fn host_name() -> String {
    let output = Command::new("uname").arg("-n").output().expect("uname");
    let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    name.split('.').next().unwrap_or_default().to_owned()
}

impl Cluster {
    /// Starts a cluster, or prints why there is none.
    pub fn start(settings: Settings) -> Option<Self> {
        if let Some(reason) = obstacle() {
            println!("skipped: {reason}");
            return None;
        }
        let obstacle = obstacle_to_memory_limits().filter(|_| settings.limits_memory);
        if let Some(reason) = obstacle {
            println!("skipped: {reason}");
            return None;
        }
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        // A short path: that of a socket has 108 bytes at most.
        let folder = tempfile::Builder::new().prefix("mbs").tempdir();
        let folder = folder.expect("a folder").keep();
        let mut cluster = Self {
            folder,
            nodes: (0..settings.n_nodes).map(|_| None).collect(),
            settings,
            munged: None,
            controller: None,
            _alone: alone,
        };
        cluster.configure();
        let run = |name: &str| cluster.folder.join(name).display().to_string();
        let munged = [
            "--foreground".to_owned(),
            format!("--key-file={}", run("munge/key")),
            format!("--socket={}", run("run/socket")),
            format!("--pid-file={}", run("munge/pid")),
            format!("--log-file={}", run("munge/log")),
            format!("--seed-file={}", run("munge/seed")),
            "--num-threads=2".to_owned(),
        ];
        let munged = cluster.daemon("munged", &munged, "");
        cluster.munged = Some(munged);
        cluster.start_controller();
        for node in 1..=cluster.settings.n_nodes {
            cluster.start_node(node);
        }
        let are_ready = cluster.becomes(|cluster| {
            let text = cluster.output("sinfo", &["-h", "-N", "-p", "main", "-o", "%T"]);
            text.lines().filter(|state| *state == "idle").count() == cluster.settings.n_nodes
        });
        if !are_ready {
            println!("skipped: no cluster starts here: {}", cluster.logs());
            return None;
        }
        Some(cluster)
    }

    pub fn config(&self) -> PathBuf {
        self.folder.join("slurm.conf")
    }

    fn configure(&self) {
        // munged wants its socket in a folder that all can enter.
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&self.folder, mode).expect("set");
        for name in ["munge", "run", "state", "spool", "log"] {
            let folder = self.folder.join(name);
            std::fs::create_dir(&folder).expect("made");
            let mode = if name == "munge" { 0o700 } else { 0o755 };
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&folder, mode).expect("set");
        }
        let key = self.folder.join("munge/key");
        let bytes: Vec<u8> = (0..128).map(|_| rand::random()).collect();
        std::fs::write(&key, bytes).expect("written");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o400)).expect("set");
        let ports = free_ports(self.settings.n_nodes + 1);
        let (host, folder) = (host_name(), self.folder.display());
        let user = Command::new("id").arg("-un").output().expect("id").stdout;
        let user = String::from_utf8_lossy(&user).trim().to_owned();
        let Settings {
            n_nodes,
            n_cpus,
            max_array_size,
            min_job_age_s,
            limits_memory,
        } = &self.settings;
        let [track, task, gather] = self.settings.plugins();
        let mut text = format!(
            "ClusterName=test\n\
             SlurmctldHost={host}(127.0.0.1)\n\
             SlurmctldPort={}\n\
             SlurmUser={user}\n\
             SlurmdUser={user}\n\
             AuthType=auth/munge\n\
             CredType=cred/munge\n\
             AuthInfo=socket={folder}/run/socket,cred_expire=5\n\
             CommunicationParameters=NoCtldInAddrAny,NoInAddrAny\n\
             StateSaveLocation={folder}/state\n\
             SlurmdSpoolDir={folder}/spool/%n\n\
             SlurmctldPidFile={folder}/slurmctld.pid\n\
             SlurmdPidFile={folder}/slurmd.%n.pid\n\
             SlurmctldLogFile={folder}/log/slurmctld.log\n\
             SlurmdLogFile={folder}/log/slurmd.%n.log\n\
             MailProg=/bin/true\n\
             ProctrackType={track}\n\
             TaskPlugin={task}\n\
             JobAcctGatherType={gather}\n\
             SwitchType=switch/none\n\
             MpiDefault=none\n\
             SelectType=select/cons_tres\n\
             SelectTypeParameters=CR_CPU_Memory\n\
             DefMemPerCPU=100\n\
             SlurmdParameters=config_overrides\n\
             SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1\n\
             ReturnToService=1\n\
             SlurmdTimeout=10\n\
             KillWait=3\n\
             MinJobAge={min_job_age_s}\n\
             MaxArraySize={max_array_size}\n\
             PreemptType=preempt/partition_prio\n\
             PreemptMode=CANCEL\n",
            ports[0]
        );
        for (node, port) in (1..).zip(&ports[1..]) {
            std::fs::create_dir(self.folder.join(format!("spool/n{node}"))).expect("made");
            let _ = writeln!(
                text,
                "NodeName=n{node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} \
                 CPUs={n_cpus} RealMemory=4000 State=UNKNOWN"
            );
        }
        let _ = writeln!(
            text,
            "PartitionName=main Nodes=n[1-{n_nodes}] Default=YES MaxTime=INFINITE State=UP\n\
             PartitionName=urgent Nodes=n[1-{n_nodes}] PriorityTier=10 State=UP"
        );
        std::fs::write(self.config(), text).expect("written");
        let limits = if *limits_memory { "yes" } else { "no" };
        let cgroups =
            format!("CgroupPlugin=cgroup/v1\nConstrainCores=no\nConstrainRAMSpace={limits}\n");
        std::fs::write(self.folder.join("cgroup.conf"), cgroups).expect("written");
    }

    /// Starts a daemon that stays in the foreground. What it starts inherits its environment.
    fn daemon(&self, program: &str, arguments: &[String], node: &str) -> Child {
        let log =
            std::fs::File::create(self.folder.join("log").join(format!("{program}{node}.out")));
        Command::new(program)
            .args(arguments)
            .env_clear()
            .env("PATH", PATHS)
            .env("HOME", "/")
            .env("LANG", "C.UTF-8")
            .env("SLURM_CONF", self.config())
            .env(NODE_MARK, format!("{}:{node}", self.folder.display()))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("a log"))
            .spawn()
            .unwrap_or_else(|err| panic!("{program}: {err}"))
    }

    pub fn start_controller(&mut self) {
        let config = self.config().display().to_string();
        let arguments = ["-D".to_owned(), "-f".to_owned(), config];
        self.controller = Some(self.daemon("slurmctld", &arguments, ""));
    }

    pub fn start_node(&mut self, node: usize) {
        let config = self.config().display().to_string();
        let name = format!("n{node}");
        let arguments = ["-D", "-f", &config, "-N", &name].map(str::to_owned);
        self.nodes[node - 1] = Some(self.daemon("slurmd", &arguments, &name));
    }

    pub fn kill_controller(&mut self) {
        end(self.controller.take());
    }

    /// Kills the daemon of a node; its jobs go on.
    pub fn kill_daemon(&mut self, node: usize) {
        end(self.nodes[node - 1].take());
    }

    /// Ends a node with all that runs on it, as a power failure does.
    pub fn kill_node(&mut self, node: usize) {
        self.kill_daemon(node);
        let mark = format!("{NODE_MARK}={}:n{node}", self.folder.display());
        let name = format!("SLURMD_NODENAME=n{node}");
        let config = format!("SLURM_CONF={}", self.config().display());
        kill_all(|variables| {
            let has = |variable: &str| variables.contains(&variable);
            has(&mark) || has(&config) && has(&name)
        });
    }

    /// A command of SLURM for this cluster.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env("SLURM_CONF", self.config());
        command
    }

    /// Stdout of a command of SLURM.
    pub fn output(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program, arguments).output().expect("started");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Jobs of the cluster: state, node and name of each, those that have ended too.
    pub fn jobs(&self) -> Vec<[String; 3]> {
        let text = self.output("squeue", &["-h", "-r", "-t", "all", "-o", "%T|%N|%j"]);
        let row = |line: &str| {
            let mut fields = line.split('|').map(str::to_owned);
            Some([fields.next()?, fields.next()?, fields.next()?])
        };
        text.lines().filter_map(row).collect()
    }

    /// A node on which a job runs.
    pub fn running_node(&self) -> Option<usize> {
        let jobs = self.jobs();
        let running = jobs.iter().find(|[state, ..]| state == "RUNNING")?;
        running[1].strip_prefix('n')?.parse().ok()
    }

    #[track_caller]
    pub fn wait_for(&self, what: &str, is_so: impl FnMut(&Self) -> bool) {
        let is_so = self.becomes(is_so);
        assert!(is_so, "waited too long for {what}: {}", self.logs());
    }

    /// Waits for something; returns false if it takes too long.
    fn becomes(&self, mut is_so: impl FnMut(&Self) -> bool) -> bool {
        let started = Instant::now();
        while !is_so(self) {
            if started.elapsed() > TIMEOUT {
                return false;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        true
    }

    /// The ends of the logs, for a test that fails.
    fn logs(&self) -> String {
        let log = std::fs::read_to_string(self.folder.join("log/slurmctld.log"));
        let log = log.unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        end(self.controller.take());
        for node in &mut self.nodes {
            end(node.take());
        }
        let config = format!("SLURM_CONF={}", self.config().display());
        for _ in 0..50 {
            let is_ours = |variables: &[&str]| {
                let is_test = |variable: &&str| variable.starts_with("MANDELBOX_TEST_PROGRAM=");
                variables.contains(&config.as_str()) && !variables.iter().any(is_test)
            };
            if kill_all(is_ours) == 0 {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        end(self.munged.take());
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn end(child: Option<Child>) {
    if let Some(mut child) = child {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Kills the processes whose variables are as given. Returns their number.
fn kill_all(is_meant: impl Fn(&[&str]) -> bool) -> usize {
    let mut n_killed = 0;
    for entry in std::fs::read_dir("/proc").expect("a folder").flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str().filter(|name| name.parse::<u32>().is_ok()) else {
            continue;
        };
        let Ok(text) = std::fs::read(entry.path().join("environ")) else {
            continue;
        };
        let text = String::from_utf8_lossy(&text);
        let variables: Vec<_> = text.split('\0').collect();
        if id != std::process::id().to_string() && is_meant(&variables) {
            let killed = Command::new("kill")
                .args(["-9", id])
                .stderr(Stdio::null())
                .status();
            n_killed += usize::from(killed.is_ok_and(|status| status.success()));
        }
    }
    n_killed
}

/// Ports that were free a moment ago.
fn free_ports(n: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..n)
        .map(|_| TcpListener::bind(("127.0.0.1", 0)).expect("a port"))
        .collect();
    let ports = listeners.iter();
    ports
        .map(|listener| listener.local_addr().expect("an address").port())
        .collect()
}
