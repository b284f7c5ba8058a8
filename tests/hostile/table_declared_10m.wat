;; outcome: memory_exceeded|refused; tries: a table that has 10,000,000 entries from the start
(module (table 10000000 funcref) (memory (export "memory") 1) (func (export "_start")))
