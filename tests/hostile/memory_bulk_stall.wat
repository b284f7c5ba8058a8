;; outcome: timed_out; tries: to fill and copy most of what memory it may have, in single instructions
(module
  (memory (export "memory") 1020)
  (func (export "_start")
    (loop $again
      (memory.fill (i32.const 0) (i32.const 7) (i32.const 66846720))
      (memory.copy (i32.const 1) (i32.const 0) (i32.const 66846719))
      (br $again))))
