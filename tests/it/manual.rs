//! `mandelbox completions` and `mandelbox man`.

use crate::project::Project;

#[test]
fn completions_name_the_subcommands() {
    let project = Project::new();
    let mut names = project.subcommands();
    names.extend(["deterministic", "isolation"].map(str::to_owned));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = project.mandelbox(&["completions", shell]).expect(0).stdout;
        for name in &names {
            assert!(text.contains(name), "{shell} {name}");
        }
    }
    project
        .mandelbox(&["completions", "cmd"])
        .expect(2)
        .reports(&["bash", "fish"]);
}

#[test]
fn the_manual_has_a_page_for_each_subcommand() {
    let project = Project::new();
    let page = project.mandelbox(&["man"]).expect(0).stdout;
    assert!(page.contains(".TH mandelbox 1"), "{page}");
    for name in project.subcommands() {
        assert!(
            page.contains(&format!("mandelbox\\-{name}(1)")),
            "{name}: {page}"
        );
        let page = project.mandelbox(&["man", &name]).expect(0).stdout;
        assert!(
            page.contains(&format!(".TH mandelbox-{name} 1")) && page.contains("Examples:"),
            "{page}"
        );
    }
    assert!(
        project
            .mandelbox(&["man", "run"])
            .expect(0)
            .stdout
            .contains("Folder that tasks write to")
    );
    assert!(!page.contains("worker"));
    project
        .mandelbox(&["man", "worker"])
        .expect(2)
        .reports(&["no such subcommand", "doctor"]);
}
