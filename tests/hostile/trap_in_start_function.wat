;; outcome: trapped; tries: to trap before its entry is called
(func $first (unreachable))
(start $first)
(func (export "_start"))
