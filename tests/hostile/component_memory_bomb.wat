;; outcome: memory_exceeded; tries: to grow its memory without end, as a component
(component
  (core module $guest
    (memory 1)
    (func (export "run") (result i32)
      (loop $again (drop (memory.grow (i32.const 16))) (br $again))
      (unreachable)))
  (core instance $guest (instantiate $guest))
  (func $run (result (result)) (canon lift (core func $guest "run")))
  (instance $cli_run (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $cli_run)))
