;; outcome: trapped; tries: to make an integer of NaN
(func (export "_start") (drop (i32.trunc_f64_s (f64.const nan))))
