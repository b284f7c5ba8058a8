;; outcome: trapped; tries: to open one file until nothing is left to open with
(data (i32.const 1024) "a.txt\00")
(func (export "_start")
  (loop $again (br_if $again (i32.eqz (call $open_to_read (global.get $in) (i32.const 1024))))))
