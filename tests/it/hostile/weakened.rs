//! A positive control: in a program without a defence, the corpus complains of the modules that it was for.

use super::THREADS;
use super::case::cases;
use super::complaints::complaints;

#[test]
fn the_corpus_notices_a_missing_defence() {
    for name in ["memory_bomb_touched", "input_write", "metadiff_symlink", "stdout_flood"] {
        let case = cases().into_iter().find(|case| case.name == name).expect("a case");
        assert!(!complaints(&case, THREADS).is_empty(), "nobody noticed {name}");
    }
    let case = cases().into_iter().find(|case| case.name == "exit_1").expect("a case");
    assert_eq!(complaints(&case, THREADS), Vec::<String>::new(), "what needs no defence still ends well");
}
