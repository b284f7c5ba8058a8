;; outcome: trapped; tries: to read clocks that tell of the host's processes
(func (export "_start")
  (drop (call $clock_time_get (i32.const 2) (i64.const 0) (i32.const 16)))
  (drop (call $clock_time_get (i32.const 3) (i64.const 0) (i32.const 16)))
  (call $must_fail (call $clock_time_get (i32.const 99) (i64.const 0) (i32.const 16))))
