;; outcome: trapped; tries: to ask for 4 GiB of random numbers
(func (export "_start")
  (call $must_fail (call $random_get (i32.const 0) (i32.const -1))))
