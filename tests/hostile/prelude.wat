;; outcome: refused; tries: to be run without a _start; its imports and helpers stand before every file here that is no (module or (component
(import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "environ_get" (func $environ_get (param i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes_get (param i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "clock_time_get" (func $clock_time_get (param i32 i64 i32) (result i32)))
(import "wasi_snapshot_preview1" "fd_allocate" (func $fd_allocate (param i32 i64 i64) (result i32)))
(import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
(import "wasi_snapshot_preview1" "fd_fdstat_get" (func $fd_fdstat_get (param i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "fd_fdstat_set_flags" (func $fd_fdstat_set_flags (param i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "fd_fdstat_set_rights" (func $fd_fdstat_set_rights (param i32 i64 i64) (result i32)))
(import "wasi_snapshot_preview1" "fd_filestat_set_size" (func $fd_filestat_set_size (param i32 i64) (result i32)))
(import "wasi_snapshot_preview1" "fd_filestat_set_times" (func $fd_filestat_set_times (param i32 i64 i64 i32) (result i32)))
(import "wasi_snapshot_preview1" "fd_prestat_dir_name" (func $fd_prestat_dir_name (param i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "fd_prestat_get" (func $fd_prestat_get (param i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "fd_pwrite" (func $fd_pwrite (param i32 i32 i32 i64 i32) (result i32)))
(import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "fd_readdir" (func $fd_readdir (param i32 i32 i32 i64 i32) (result i32)))
(import "wasi_snapshot_preview1" "fd_renumber" (func $fd_renumber (param i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "fd_seek" (func $fd_seek (param i32 i64 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "fd_sync" (func $fd_sync (param i32) (result i32)))
(import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "path_create_directory" (func $path_create_directory (param i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "path_filestat_get" (func $path_filestat_get (param i32 i32 i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "path_filestat_set_times" (func $path_filestat_set_times (param i32 i32 i32 i32 i64 i64 i32) (result i32)))
(import "wasi_snapshot_preview1" "path_link" (func $path_link (param i32 i32 i32 i32 i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "path_open" (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "path_readlink" (func $path_readlink (param i32 i32 i32 i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "path_remove_directory" (func $path_remove_directory (param i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "path_rename" (func $path_rename (param i32 i32 i32 i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "path_symlink" (func $path_symlink (param i32 i32 i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "path_unlink_file" (func $path_unlink_file (param i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
(import "wasi_snapshot_preview1" "proc_raise" (func $proc_raise (param i32) (result i32)))
(import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "sched_yield" (func $sched_yield (result i32)))
(import "wasi_snapshot_preview1" "sock_accept" (func $sock_accept (param i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "sock_recv" (func $sock_recv (param i32 i32 i32 i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "sock_send" (func $sock_send (param i32 i32 i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "sock_shutdown" (func $sock_shutdown (param i32 i32) (result i32)))

;; 0..1024: structures of calls; 1024..32768: texts of the attack, each with a NUL at its end; 32768..131072: the
;; command line; from 131072: free.
(memory (export "memory") 4)
(global $own i32 (i32.const 3)) ;; the scratch folder under the path of the task's subfolder; 4 is the same as /tmp
(global $scratch i32 (i32.const 5))
(global $in i32 (i32.const 6))
(global $out i32 (i32.const 7))
;; The file that $open opened last.
(global $fd (mut i32) (i32.const -1))

;; Ends the guest with exit code 70 if an attack went well.
(func $must_fail (param $errno i32)
  (if (i32.eqz (local.get $errno)) (then (call $proc_exit (i32.const 70)))))

;; Ends the guest with exit code 1000 + errno if something harmless did not go well.
(func $must_work (param $errno i32)
  (if (local.get $errno) (then (call $proc_exit (i32.add (i32.const 1000) (local.get $errno))))))

(func $length (param $text i32) (result i32)
  (local $end i32)
  (local.set $end (local.get $text))
  (loop $next
    (if (i32.load8_u (local.get $end))
      (then (local.set $end (i32.add (local.get $end) (i32.const 1))) (br $next))))
  (i32.sub (local.get $end) (local.get $text)))

;; oflags: 1 create, 2 directory, 4 exclusive, 8 truncate.
(func $open (param $dir i32) (param $path i32) (param $oflags i32) (param $rights i64) (result i32)
  (local $errno i32)
  (local.set $errno (call $path_open (local.get $dir) (i32.const 1) (local.get $path)
    (call $length (local.get $path)) (local.get $oflags) (local.get $rights) (local.get $rights) (i32.const 0)
    (i32.const 24)))
  (global.set $fd (i32.load (i32.const 24)))
  (local.get $errno))

(func $open_to_read (param $dir i32) (param $path i32) (result i32)
  (call $open (local.get $dir) (local.get $path) (i32.const 0) (i64.const 0x4002)))

(func $open_to_write (param $dir i32) (param $path i32) (result i32)
  (call $open (local.get $dir) (local.get $path) (i32.const 1) (i64.const 0x42)))

(func $write (param $to i32) (param $bytes i32) (param $n i32) (result i32)
  (i32.store (i32.const 0) (local.get $bytes))
  (i32.store (i32.const 4) (local.get $n))
  (call $fd_write (local.get $to) (i32.const 0) (i32.const 1) (i32.const 16)))

;; Creates or overwrites a file with a text.
(func $put (param $dir i32) (param $path i32) (param $text i32) (result i32)
  (local $errno i32)
  (local.set $errno (call $open (local.get $dir) (local.get $path) (i32.const 9) (i64.const 0x42)))
  (if (local.get $errno) (then (return (local.get $errno))))
  (local.set $errno (call $write (global.get $fd) (local.get $text) (call $length (local.get $text))))
  (drop (call $fd_close (global.get $fd)))
  (local.get $errno))

;; Must fail to open a file for reading; prints what is in it if not, for the host to see.
(func $steal (param $dir i32) (param $path i32)
  (if (call $open_to_read (local.get $dir) (local.get $path)) (then (return)))
  (i32.store (i32.const 0) (i32.const 131072))
  (i32.store (i32.const 4) (i32.const 4096))
  (drop (call $fd_read (global.get $fd) (i32.const 0) (i32.const 1) (i32.const 16)))
  (drop (call $write (i32.const 2) (i32.const 131072) (i32.load (i32.const 16))))
  (call $proc_exit (i32.const 70)))

(func $mkdir (param $dir i32) (param $path i32) (result i32)
  (call $path_create_directory (local.get $dir) (local.get $path) (call $length (local.get $path))))

(func $rmdir (param $dir i32) (param $path i32) (result i32)
  (call $path_remove_directory (local.get $dir) (local.get $path) (call $length (local.get $path))))

(func $unlink (param $dir i32) (param $path i32) (result i32)
  (call $path_unlink_file (local.get $dir) (local.get $path) (call $length (local.get $path))))

(func $symlink (param $target i32) (param $dir i32) (param $path i32) (result i32)
  (call $path_symlink (local.get $target) (call $length (local.get $target))
    (local.get $dir) (local.get $path) (call $length (local.get $path))))

(func $rename (param $dir i32) (param $path i32) (param $to_dir i32) (param $to i32) (result i32)
  (call $path_rename (local.get $dir) (local.get $path) (call $length (local.get $path))
    (local.get $to_dir) (local.get $to) (call $length (local.get $to))))

(func $link (param $dir i32) (param $path i32) (param $to_dir i32) (param $to i32) (result i32)
  (call $path_link (local.get $dir) (i32.const 0) (local.get $path) (call $length (local.get $path))
    (local.get $to_dir) (local.get $to) (call $length (local.get $to))))

(func $argument (param $n i32) (result i32)
  (drop (call $args_sizes_get (i32.const 64) (i32.const 68)))
  (drop (call $args_get (i32.const 32768) (i32.const 40960)))
  (i32.load (i32.add (i32.const 32768) (i32.mul (i32.const 4) (local.get $n)))))

(func $base_name (param $path i32) (result i32)
  (local $at i32)
  (local.set $at (i32.add (local.get $path) (call $length (local.get $path))))
  (loop $back
    (if (i32.ne (i32.load8_u (local.get $at)) (i32.const 47))
      (then (local.set $at (i32.sub (local.get $at) (i32.const 1))) (br $back))))
  (i32.add (local.get $at) (i32.const 1)))

;; Names of the two files of this call, in the scratch folder.
(func $args_name (result i32) (call $base_name (call $argument (i32.const 2))))
(func $metadiff_name (result i32) (call $base_name (call $argument (i32.const 4))))

(func $put_metadiff (param $text i32)
  (call $must_work (call $put (global.get $scratch) (call $metadiff_name) (local.get $text))))

;; Opens the metadiff and writes n bytes from 131072 on to it, again and again.
(func $fill_metadiff (param $n i32) (param $times i32)
  (call $must_work (call $open_to_write (global.get $scratch) (call $metadiff_name)))
  (loop $next
    (call $must_work (call $write (global.get $fd) (i32.const 131072) (local.get $n)))
    (br_if $next (local.tee $times (i32.sub (local.get $times) (i32.const 1))))))
