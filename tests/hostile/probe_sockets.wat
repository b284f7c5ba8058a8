;; outcome: succeeded; tries: to use files and folders as sockets
(func (export "_start")
  (local $n i32)
  (i32.store (i32.const 0) (i32.const 131072))
  (i32.store (i32.const 4) (i32.const 100))
  (loop $next
    (call $must_fail (call $sock_accept (local.get $n) (i32.const 0) (i32.const 24)))
    (call $must_fail (call $sock_recv (local.get $n) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 16) (i32.const 20)))
    (call $must_fail (call $sock_send (local.get $n) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 16)))
    (call $must_fail (call $sock_shutdown (local.get $n) (i32.const 3)))
    (br_if $next (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 20)))))
