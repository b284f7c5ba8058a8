;; outcome: trapped; tries: to throw an exception at the host before its entry is called
(tag $e)
(func $first (throw $e))
(start $first)
(func (export "_start"))
