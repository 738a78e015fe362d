from minigen.corpora.pictures import main
from minigen.system.streams import one_line_errors

if __name__ == "__main__":
    with one_line_errors():
        main()
