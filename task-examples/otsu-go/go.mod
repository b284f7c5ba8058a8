module otsu-go

go 1.27
