;; outcome: trapped; tries: to open one folder until nothing is left to open with
(data (i32.const 1024) ".\00")
(func (export "_start")
  (loop $again
    (br_if $again (i32.eqz (call $open (global.get $out) (i32.const 1024) (i32.const 2) (i64.const 0x4000))))))
