;; outcome: trapped; tries: to poll as many clocks as fit in 48 MiB, each an hour
(func (export "_start")
  (local $at i32)
  (drop (memory.grow (i32.const 1000)))
  (local.set $at (i32.const 131072))
  (loop $next
    (i32.store (i32.add (local.get $at) (i32.const 16)) (i32.const 1))
    (i64.store (i32.add (local.get $at) (i32.const 24)) (i64.const 3600000000000))
    (local.set $at (i32.add (local.get $at) (i32.const 48)))
    (br_if $next (i32.lt_u (local.get $at) (i32.const 48131072))))
  (drop (call $poll_oneoff (i32.const 131072) (i32.const 131072) (i32.const 1000000) (i32.const 8))))
