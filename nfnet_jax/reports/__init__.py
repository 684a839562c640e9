"""The page that shows what runs did: reading, measuring, drawing."""
