;; outcome: memory_exceeded; tries: a memory that has one page more than the limit from the start
(module (memory (export "memory") 1025) (func (export "_start")))
