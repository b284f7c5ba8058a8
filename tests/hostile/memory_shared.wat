;; outcome: refused; tries: a memory that threads share, which no limiter is asked about
(module (memory (export "memory") 1 65536 shared) (func (export "_start") (drop (memory.grow (i32.const 65535)))))
