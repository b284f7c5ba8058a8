;; outcome: memory_exceeded; tries: to grow its memory without end
(func (export "_start")
  (loop $again (drop (memory.grow (i32.const 16))) (br $again)))
