;; outcome: refused; tries: a component that wants an interface that WASI does not have
(component
  (import "wasi:cli/spawn@0.2.0" (instance (export "spawn" (func (param "command" string)))))
  (core module $guest (func (export "run") (result i32) (i32.const 0)))
  (core instance $guest (instantiate $guest))
  (func $run (result (result)) (canon lift (core func $guest "run")))
  (instance $cli_run (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $cli_run)))
