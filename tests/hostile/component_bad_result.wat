;; outcome: trapped; tries: a result that is neither well nor an error
(component
  (core module $guest
    (func (export "run") (result i32) (i32.const 77)))
  (core instance $guest (instantiate $guest))
  (func $run (result (result)) (canon lift (core func $guest "run")))
  (instance $cli_run (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $cli_run)))
