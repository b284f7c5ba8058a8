;; outcome: trapped; tries: to copy past the end of its memory
(func (export "_start") (memory.copy (i32.const 0) (i32.const 262000) (i32.const -1)))
