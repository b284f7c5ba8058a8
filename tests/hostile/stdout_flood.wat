;; outcome: timed_out; tries: to write to stdout without end
(func (export "_start")
  (local $at i32)
  (local.set $at (i32.const 131072))
  (loop $next
    (i64.store (local.get $at) (i64.const 0x0a61616161616161))
    (local.set $at (i32.add (local.get $at) (i32.const 8)))
    (br_if $next (i32.lt_u (local.get $at) (i32.const 196608))))
  (loop $again
    (drop (call $write (i32.const 1) (i32.const 131072) (i32.const 65536)))
    (br $again)))
