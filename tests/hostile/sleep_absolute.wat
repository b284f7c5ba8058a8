;; outcome: timed_out; tries: to sleep until an hour from now
(func (export "_start")
  (drop (call $clock_time_get (i32.const 1) (i64.const 0) (i32.const 16)))
  (i64.store (i32.const 131072) (i64.const 131072))
  (i32.store8 (i32.const 131080) (i32.const 0))
  (i32.store (i32.const 131088) (i32.const 1))
  (i64.store (i32.const 131096) (i64.add (i64.load (i32.const 16)) (i64.const 3600000000000)))
  (i32.store16 (i32.const 131112) (i32.const 1))
  (drop (call $poll_oneoff (i32.const 131072) (i32.const 140000) (i32.const 1) (i32.const 8))))
