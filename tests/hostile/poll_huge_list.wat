;; outcome: succeeded; tries: to poll 2^32 - 1 subscriptions
(func (export "_start")
  (call $must_fail (call $poll_oneoff (i32.const 131072) (i32.const 140000) (i32.const -1) (i32.const 8))))
