;; outcome: succeeded; tries: to write 24 MiB of stdout and of stderr in the end; both are cut at 16 MiB
(func (export "_start")
  (local $n i32)
  (drop (memory.grow (i32.const 40)))
  (loop $again
    (call $must_work (call $write (i32.const 1) (i32.const 131072) (i32.const 2097152)))
    (call $must_work (call $write (i32.const 2) (i32.const 131072) (i32.const 2097152)))
    (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 12)))))
