;; outcome: trapped; tries: to throw an exception at the host
(tag $e (param i64))
(func (export "_start") (throw $e (i64.const 1)))
