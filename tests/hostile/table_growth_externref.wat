;; outcome: memory_exceeded|trapped; tries: to grow a table of host references without end
(table $t 0 externref)
(func (export "_start")
  (loop $again
    (if (i32.eq (table.grow $t (ref.null extern) (i32.const 100000)) (i32.const -1)) (then (unreachable)))
    (br $again)))
