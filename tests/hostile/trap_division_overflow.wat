;; outcome: trapped; tries: to divide the least integer by -1
(func (export "_start") (drop (i64.div_s (i64.const -0x8000000000000000) (i64.const -1))))
