;; outcome: trapped; tries: to return a text outside its memory from a typed task
(component
  (core module $guest
    (memory (export "memory") 2)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
    (data (i32.const 16) "\00\04\00\00\38\00\00\00")
    (data (i32.const 1024) "{\"name\": \"t\", \"input_type\": \"Any\", \"output_type\": \"Any\"}")
    (func (export "describe") (result i32) (i32.const 16))
    (func (export "run") (param i32 i32) (result i32)
      (i32.store8 (i32.const 64) (i32.const 0)) (i32.store8 (i32.const 68) (i32.const 1))
      (i32.store (i32.const 72) (i32.const 131060)) (i32.store (i32.const 76) (i32.const 100))
      (i32.const 64)))
  (core instance $guest (instantiate $guest))
  (func $run (param "args" string) (result (result (option string) (error string)))
    (canon lift (core func $guest "run") (memory (core memory $guest "memory")) (realloc (core func $guest "realloc"))))
  (func $describe (result string) (canon lift (core func $guest "describe") (memory (core memory $guest "memory")) (realloc (core func $guest "realloc"))))
  (export "run" (func $run))
  (export "describe" (func $describe)))
