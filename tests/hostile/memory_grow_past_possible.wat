;; outcome: succeeded; tries: to grow its memory by 2^32 - 1 pages
(func (export "_start")
  (drop (memory.grow (i32.const -1))))
