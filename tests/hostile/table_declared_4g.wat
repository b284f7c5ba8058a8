;; outcome: memory_exceeded|refused; tries: a table that has 2^32 - 1 entries from the start
(module (table 4294967295 funcref) (memory (export "memory") 1) (func (export "_start")))
