;; outcome: memory_exceeded; tries: to grow its memory by 1 MiB at a time and to fill all of it
(func (export "_start")
  (local $page i32)
  (loop $again
    (local.set $page (memory.grow (i32.const 16)))
    (if (i32.eq (local.get $page) (i32.const -1)) (then (call $proc_exit (i32.const 70))))
    (memory.fill (i32.mul (local.get $page) (i32.const 65536)) (i32.const 1) (i32.const 1048576))
    (br $again)))
