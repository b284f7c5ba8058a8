;; outcome: refused; tries: a typed task that wants more than its world
(component
  (import "host-shell" (func (param "command" string)))
  (core module $guest
    (memory (export "memory") 2)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
    (data (i32.const 16) "\00\04\00\00\38\00\00\00")
    (data (i32.const 1024) "{\"name\": \"t\", \"input_type\": \"Any\", \"output_type\": \"Any\"}")
    (func (export "describe") (result i32) (i32.const 16))
    (func (export "run") (param i32 i32) (result i32)
      (i32.const 96)))
  (core instance $guest (instantiate $guest))
  (func $run (param "args" string) (result (result (option string) (error string)))
    (canon lift (core func $guest "run") (memory (core memory $guest "memory")) (realloc (core func $guest "realloc"))))
  (func $describe (result string) (canon lift (core func $guest "describe") (memory (core memory $guest "memory")) (realloc (core func $guest "realloc"))))
  (export "run" (func $run))
  (export "describe" (func $describe)))
