;; outcome: succeeded|timed_out; tries: to move descriptors around 20,000 times
(data (i32.const 1024) "a.txt\00")
(func (export "_start")
  (local $n i32) (local $first i32)
  (loop $again
    (if (call $open_to_read (global.get $in) (i32.const 1024)) (then (return)))
    (if (i32.eqz (local.get $first)) (then (local.set $first (global.get $fd))))
    (drop (call $fd_renumber (global.get $fd) (local.get $first)))
    (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 20000)))))
