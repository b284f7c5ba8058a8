;; outcome: succeeded; tries: to find more folders than the five that it was given
(func (export "_start")
  (call $must_work (call $fd_prestat_get (i32.const 3) (i32.const 64)))
  (call $must_work (call $fd_prestat_get (i32.const 7) (i32.const 64)))
  (call $must_fail (call $fd_prestat_get (i32.const 8) (i32.const 64)))
  (call $must_fail (call $fd_prestat_get (i32.const 0) (i32.const 64)))
  (call $must_fail (call $fd_prestat_get (i32.const -1) (i32.const 64)))
  (call $must_fail (call $fd_prestat_dir_name (i32.const 3) (i32.const 131072) (i32.const 1))))
