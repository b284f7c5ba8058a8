;; outcome: succeeded; tries: to poll an empty list
(func (export "_start")
  (call $must_fail (call $poll_oneoff (i32.const 131072) (i32.const 140000) (i32.const 0) (i32.const 8))))
