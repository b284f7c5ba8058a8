;; outcome: trapped; tries: to have its command line written past the end of its memory
(func (export "_start")
  (drop (call $argument (i32.const 4)))
  (if (i32.ne (i32.load (i32.const 64)) (i32.const 5)) (then (call $proc_exit (i32.const 71))))
  (call $must_fail (call $args_get (i32.const 262140) (i32.const 262140)))
  (call $must_fail (call $args_sizes_get (i32.const -1) (i32.const -1))))
