;; outcome: trapped; tries: to trap, as a component
(component
  (core module $guest
    (func (export "run") (result i32) (unreachable)))
  (core instance $guest (instantiate $guest))
  (func $run (result (result)) (canon lift (core func $guest "run")))
  (instance $cli_run (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $cli_run)))
