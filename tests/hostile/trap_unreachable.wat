;; outcome: trapped; tries: to reach what cannot be reached
(func (export "_start") (unreachable))
