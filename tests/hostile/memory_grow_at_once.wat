;; outcome: memory_exceeded; tries: to grow its memory to 4 GiB in one step
(func (export "_start")
  (drop (memory.grow (i32.const 65532))))
