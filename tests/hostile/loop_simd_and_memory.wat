;; outcome: timed_out; tries: to add up its memory as vectors without end
(func (export "_start")
  (local $at i32) (local $sum v128)
  (loop $again
    (local.set $sum (i8x16.add (local.get $sum) (v128.load (local.get $at))))
    (local.set $at (i32.and (i32.add (local.get $at) (i32.const 16)) (i32.const 0xfff0)))
    (br $again)))
