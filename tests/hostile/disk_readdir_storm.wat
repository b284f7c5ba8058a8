;; outcome: timed_out; tries: to list a folder of its own without end, with odd cookies
(func (export "_start")
  (local $cookie i64)
  (loop $again
    (drop (call $fd_readdir (global.get $scratch) (i32.const 131072) (i32.const 24) (local.get $cookie) (i32.const 16)))
    (drop (call $fd_readdir (global.get $in) (i32.const 131072) (i32.const 65536) (i64.const -1) (i32.const 16)))
    (local.set $cookie (i64.add (local.get $cookie) (i64.const 1)))
    (br $again)))
