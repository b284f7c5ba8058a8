;; outcome: memory_exceeded|trapped; tries: to grow a table without end
(table $t 0 funcref)
(func (export "_start")
  (loop $again
    (if (i32.eq (table.grow $t (ref.null func) (i32.const 100000)) (i32.const -1)) (then (unreachable)))
    (br $again)))
