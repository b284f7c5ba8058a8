;; outcome: memory_exceeded; tries: to grow its memory a page at a time and write to each
(func (export "_start")
  (local $page i32)
  (loop $again
    (local.set $page (memory.grow (i32.const 1)))
    (if (i32.eq (local.get $page) (i32.const -1)) (then (call $proc_exit (i32.const 70))))
    (i32.store (i32.mul (local.get $page) (i32.const 65536)) (i32.const 1))
    (br $again)))
