;; outcome: succeeded; tries: a path that is no text
(data (i32.const 1024) "a\ff\fe.txt\00")
(data (i32.const 1056) "a\ff\fe\00")
(func (export "_start")
  (call $must_fail (call $open_to_read (global.get $in) (i32.const 1024)))
  (call $must_fail (call $mkdir (global.get $out) (i32.const 1056))))
