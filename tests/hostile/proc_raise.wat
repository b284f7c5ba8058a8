;; outcome: succeeded; tries: to raise signals in the host
(func (export "_start")
  (call $must_fail (call $proc_raise (i32.const 9)))
  (call $must_fail (call $proc_raise (i32.const 15))))
