;; outcome: timed_out; tries: to sleep until the monotonic clock's last tick
(func (export "_start")
  (i64.store (i32.const 131072) (i64.const 131072))
  (i32.store8 (i32.const 131080) (i32.const 0))
  (i32.store (i32.const 131088) (i32.const 1))
  (i64.store (i32.const 131096) (i64.const -1))
  (i32.store16 (i32.const 131112) (i32.const 1))
  (drop (call $poll_oneoff (i32.const 131072) (i32.const 140000) (i32.const 1) (i32.const 8))))
