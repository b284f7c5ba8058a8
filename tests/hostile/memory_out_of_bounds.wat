;; outcome: trapped; tries: to read past the end of its memory
(func (export "_start") (drop (i32.load offset=4294967295 (i32.const -1))))
