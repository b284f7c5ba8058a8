;; outcome: succeeded; tries: to find an open descriptor of the host among the first 1,000 numbers
(func (export "_start")
  (local $n i32)
  (local.set $n (i32.const 8))
  (loop $next
    (call $must_fail (call $fd_fdstat_get (local.get $n) (i32.const 131072)))
    (br_if $next (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 1000)))))
