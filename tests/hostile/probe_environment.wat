;; outcome: succeeded; tries: to find a variable of the environment
(func (export "_start")
  (call $must_work (call $environ_sizes_get (i32.const 64) (i32.const 68)))
  (if (i32.or (i32.load (i32.const 64)) (i32.load (i32.const 68))) (then (call $proc_exit (i32.const 70))))
  (call $must_work (call $environ_get (i32.const 131072) (i32.const 135168))))
