;; outcome: refused; tries: a component whose entry takes a parameter
(component
  (core module $guest (func (export "run") (param i32) (result i32) (i32.const 0)))
  (core instance $guest (instantiate $guest))
  (func $run (param "n" u32) (result (result)) (canon lift (core func $guest "run")))
  (instance $cli_run (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $cli_run)))
